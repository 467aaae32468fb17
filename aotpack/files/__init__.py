"""Files of a computer: regular ones alone are read, and what is written is whole and durable."""
