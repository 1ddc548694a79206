"""Running the service's processes: started, watched over, ended, and their log lines."""
