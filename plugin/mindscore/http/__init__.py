"""JSON over HTTP: the client of model servers, and the runner that servers share."""
