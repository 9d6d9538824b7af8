"""Self-contained HTML pages: a profile with its timeline, a comparison of two. Markup, style and scripts lie here."""
