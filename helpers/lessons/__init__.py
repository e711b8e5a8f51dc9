"""What single notebooks need, a folder for each subject."""
