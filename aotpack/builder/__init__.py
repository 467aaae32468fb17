"""From a spec to a package: plan, compile in workers, check the numbers, pack, report."""
