"""Problems whose answers can be checked, with worked solutions to take hints from: plain rows."""
