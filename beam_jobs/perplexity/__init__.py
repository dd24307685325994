"""Quality by perplexity: a language model's surprise at a document, and what follows from it."""
