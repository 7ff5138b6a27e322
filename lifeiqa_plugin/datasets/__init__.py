"""Datasets with opinion scores: from their authors' files to one csv."""
