"""What every part uses: texts from outside, checked values, paths in packages, child processes."""
