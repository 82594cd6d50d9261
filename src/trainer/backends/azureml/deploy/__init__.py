"""From a run's adapter to an endpoint and back: register, plan, deploy, list, talk to, tear down."""
