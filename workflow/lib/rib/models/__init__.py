"""Pretrained models: conversion to safetensors, building, inputs, class logits, checkpoints."""
