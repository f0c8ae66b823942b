"""Runs of many pictures: files of prompts, folders to enlarge, and work shared among workers."""
