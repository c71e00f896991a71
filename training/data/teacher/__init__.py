"""What a teacher saw in the images: scores of those with labels, and further images without any."""
