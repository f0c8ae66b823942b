"""Handles pictures: conversion between tensors and PIL, resizing, previews, PNG files and embedded text."""
