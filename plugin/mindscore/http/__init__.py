"""JSON over HTTP: the client of model servers, and the runner that our servers share."""
