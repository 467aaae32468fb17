"""What is kept on this machine: the files of variants, what was compiled here, and when it goes."""
