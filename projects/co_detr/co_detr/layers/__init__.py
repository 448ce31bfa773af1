"""Parts of the transformer that know nothing of detection."""
