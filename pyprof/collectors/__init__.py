"""What is measured, one collector a file."""
