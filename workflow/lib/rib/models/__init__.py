"""Pretrained models: conversion to safetensors, building, images, class logits, checkpoints."""
