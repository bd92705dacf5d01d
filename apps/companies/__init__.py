"""Application `companies`: dashboard widgets per company, fed by messages, with a day's replay."""
