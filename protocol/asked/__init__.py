"""What a job reads: digits, numbers or forms, what is known of them, and the risk it takes."""
