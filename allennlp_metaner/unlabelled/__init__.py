"""Text without labels: teachers label it, and a student learns from their labels."""
