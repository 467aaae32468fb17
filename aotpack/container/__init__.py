"""The bytes of a package: its format, its reader, and its writer, which finds what files share."""
