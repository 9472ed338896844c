"""fumehood: the AgentCore Code Interpreter API, self-hosted, each session in its own sandbox."""
