"""What stays on chip beyond a region: values between regions, weights; found in finished straight streams."""
