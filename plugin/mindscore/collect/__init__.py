"""A server that takes the turns of agents in any language, and scores them when these are idle."""
