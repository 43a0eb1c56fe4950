"""The report's page: one section a file, each with what it reads of report.json and the words around it."""
