"""Runs machine programs: functional, strict and timing."""
