"""What happens to the guest, or around it, while a workload is at work."""
