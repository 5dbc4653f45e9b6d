"""The router patch for vLLM: profiles (what to tune), the edit, capture, and the plugin that hooks them in."""
