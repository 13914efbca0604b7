"""The assembly line: from sources to an approved model, in nine stages that a rerun may skip one by one."""
