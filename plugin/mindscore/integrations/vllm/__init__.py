"""The plugin for vLLM: ``/v1/score`` on a server started with VLLM_PLUGINS=mindscore."""
