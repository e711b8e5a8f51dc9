"""The site: pages made of the committed notebooks, records and claims. Nothing is executed, and no figure is typed."""
