"""Study: the records of an atlas, measured on a network and the index of a scan of its sites."""
