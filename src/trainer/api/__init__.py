"""The fine-tuning API of OpenAI over this machine's runs: routes beside the pages, for programs with a key."""
