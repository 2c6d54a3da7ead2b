"""From a folder of markdown to nodes, edges and the ledger of links, and back to the text."""
