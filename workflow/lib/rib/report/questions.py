"""The questions that the page answers, in its order.

A figure or table states the key of the one that it helps to answer.
"""

QUESTIONS = {
    "survived": "How much survived?",
    "method": "Which method?",
    "model": "Which model?",
    "why": "Why?",
    "cost": "What did it cost?",
    "trust": "Can I trust it?",
}
