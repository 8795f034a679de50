"""What the documentation's figures are measured with; README.md here says where."""
