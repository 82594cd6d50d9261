"""A job of a fine-tuning service, moved to an open model: fetched, trained again, and both compared."""
