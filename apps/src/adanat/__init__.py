"""AdaNAT, from raw images to the evaluated policy: the application over the packages."""
