"""The few custom HTML components, each beside its template, style and script."""
