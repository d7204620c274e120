"""Rows in the formats that people have, made after the published descriptions, and what they become."""

from __future__ import annotations

from typing import Any, NamedTuple

USER = {"role": "user", "content": "2+2?"}
FOUR = {"role": "assistant", "content": "4"}
FIVE = {"role": "assistant", "content": "5"}
PART = {"type": "text"}
DIALOGUE = "\n\nHuman: Hi.\n\nAssistant: Hello: how can I help?\n\nHuman: 2+2?\n\nAssistant:"
HI = [
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello: how can I help?"},
    USER,
]
CALL = '{"name": "add", "arguments": {"a": 2}}'
CALLED = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]


def rated(*ratings: str) -> dict[str, Any]:
    names = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    return {
        name: {"Rating": one, "Rationale": "..."} for name, one in zip(names, ratings, strict=True)
    }


class Shape(NamedTuple):
    """One row of a published format."""

    form: str
    row: dict[str, Any]
    becomes: list[dict[str, Any]]
    """Without `id`."""


SHAPES = {
    "OpenAI preference": Shape(
        "openai_preference",
        {
            "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [FOUR],
            "non_preferred_output": [FIVE],
        },
        [{"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}],
    ),
    "LLaMA-Factory ShareGPT pair": Shape(
        "llama_factory",
        {
            "conversations": [{"from": "human", "value": "2+2?"}],
            "chosen": {"from": "gpt", "value": "4"},
            "rejected": {"from": "gpt", "value": "5"},
        },
        [{"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}],
    ),
    "LLaMA-Factory ShareGPT KTO": Shape(
        "llama_factory",
        {
            "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
            "system": "Be brief.",
            "kto_tag": "false",
        },
        [
            {
                "prompt": [{"role": "system", "content": "Be brief."}, USER],
                "completion": [FOUR],
                "label": False,
            }
        ],
    ),
    "LLaMA-Factory Alpaca pair": Shape(
        "llama_factory",
        {"instruction": "Add.", "input": "2, 2", "chosen": "4", "rejected": "5"},
        [{"prompt": "Add.\n\n2, 2", "chosen": "4", "rejected": "5"}],
    ),
    "LLaMA-Factory Alpaca pair of outputs": Shape(
        "llama_factory",
        {"instruction": "2+2?", "input": "", "output": ["4", "5"]},
        [{"prompt": "2+2?", "chosen": "4", "rejected": "5"}],
    ),
    "LLaMA-Factory Alpaca KTO": Shape(
        "llama_factory",
        {"instruction": "2+2?", "input": "", "output": "4", "kto_tag": True},
        [{"prompt": "2+2?", "completion": "4", "label": True}],
    ),
    "ms-swift pair": Shape(
        "ms_swift",
        {"messages": [USER, FOUR], "rejected_response": "5"},
        [{"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}],
    ),
    "ms-swift, several worse ones": Shape(
        "ms_swift",
        {"messages": [USER, FOUR], "rejected_response": ["5", "6"]},
        [
            {"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]},
            {
                "prompt": [USER],
                "chosen": [FOUR],
                "rejected": [{"role": "assistant", "content": "6"}],
            },
        ],
    ),
    "ms-swift pair of conversations": Shape(
        "ms_swift",
        {"messages": [USER, FOUR], "rejected_messages": [USER, FIVE]},
        [{"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}],
    ),
    "ms-swift KTO": Shape(
        "ms_swift",
        {"messages": [USER, FOUR], "label": True},
        [{"prompt": [USER], "completion": [FOUR], "label": True}],
    ),
    "ms-swift tools": Shape(
        "ms_swift",
        {
            "messages": [
                USER,
                {"role": "tool_call", "content": CALL},
                {"role": "tool_response", "content": "4"},
                FOUR,
            ]
        },
        [
            {
                "messages": [
                    USER,
                    {"role": "assistant", "content": None, "tool_calls": CALLED},
                    {"role": "tool", "content": "4"},
                    FOUR,
                ]
            }
        ],
    ),
    "ms-swift query and response": Shape(
        "ms_swift",
        {"query": "2+2?", "response": "4", "history": [["Hi.", "Hello: how can I help?"]]},
        [{"messages": [*HI, FOUR]}],
    ),
    "Anthropic HH": Shape(
        "hh",
        {"chosen": f"{DIALOGUE} 4", "rejected": f"{DIALOGUE} 5"},
        [{"prompt": HI, "chosen": [FOUR], "rejected": [FIVE]}],
    ),
    "UltraFeedback": Shape(
        "ultrafeedback",
        {
            "source": "sharegpt",
            "instruction": "2+2?",
            "models": ["a", "b", "c"],
            "completions": [
                {
                    "model": "a",
                    "response": "4",
                    "annotations": rated("5", "5", "4", "5"),
                    "overall_score": 9,
                },
                {"model": "b", "response": "5", "annotations": rated("1", "2", "N/A", "1")},
                {"model": "c", "response": "?", "annotations": rated(*["N/A"] * 4)},
            ],
        },
        [{"prompt": "2+2?", "completions": ["4", "5"], "scores": [0.9375, 1 / 12]}],
    ),
    "HelpSteer2": Shape(
        "helpsteer2",
        {
            "prompt": "2+2?",
            "response": "4",
            **{"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 1},
        },
        [{"prompt": "2+2?", "completion": "4", "score": 6.95 / 7.6}],
    ),
    "HelpSteer2 of several turns": Shape(
        "helpsteer2",
        {
            "prompt": "Hi.\n<extra_id_1>Assistant\nHello: how can I help?\n<extra_id_1>User\n2+2?",
            "response": "4",
            **{"helpfulness": 0, "correctness": 0, "coherence": 0, "complexity": 1, "verbosity": 1},
        },
        [{"prompt": HI, "completion": [FOUR], "score": 0.0}],
    ),
    "HelpSteer2 preference": Shape(
        "helpsteer3",
        {"prompt": "2+2?", "response_1": "5", "response_2": "4", "preference_strength": 2},
        [{"prompt": "2+2?", "chosen": "4", "rejected": "5"}],
    ),
    "HelpSteer3": Shape(
        "helpsteer3",
        {
            "domain": "general",
            "context": [USER],
            "response1": "4",
            "response2": "5",
            "overall_preference": -1,
            "individual_preference": [{"score": -1, "reasoning": "...", "feedback_1": "..."}],
        },
        [{"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}],
    ),
    "Nectar": Shape(
        "nectar",
        {
            "prompt": "\n\nHuman: 2+2?\n\nAssistant: ",
            "answers": [
                {"answer": "4", "model": "a", "rank": 1.0},
                {"answer": "four?", "model": "b", "rank": 2.0},
                {"answer": "5", "model": "c", "rank": 3.0},
            ],
            "turns": 1,
        },
        [
            {
                "prompt": [USER],
                "completions": [[FOUR], [{"role": "assistant", "content": "four?"}], [FIVE]],
                "scores": [1.0, 0.5, 0.0],
            }
        ],
    ),
    "Chatbot Arena": Shape(
        "arena",
        {
            "question_id": "q",
            "model_a": "a",
            "model_b": "b",
            "winner": "model_b",
            "conversation_a": [USER, FIVE],
            "conversation_b": [USER, FOUR],
            "turn": 1,
        },
        [{"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}],
    ),
    "MT-bench, judged after the first turn": Shape(
        "arena",
        {
            "question_id": 81,
            "model_a": "a",
            "model_b": "b",
            "winner": "model_a",
            "judge": "expert_1",
            "conversation_a": [USER, FOUR, {"role": "user", "content": "3+3?"}, FIVE],
            "conversation_b": [USER, FIVE, {"role": "user", "content": "3+3?"}, FOUR],
            "turn": 1,
        },
        [{"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}],
    ),
    "Arena of a competition": Shape(
        "arena",
        {
            "id": 3,
            "prompt": '["2+2?"]',
            "response_a": '["4"]',
            "response_b": '["5"]',
            **{"winner_model_a": "1", "winner_model_b": "0", "winner_tie": "0"},
        },
        [{"prompt": "2+2?", "chosen": "4", "rejected": "5"}],
    ),
    "SHP": Shape(
        "shp",
        {
            "post_id": "p",
            "history": "2+2?",
            "human_ref_A": "5",
            "human_ref_B": "4",
            **{"labels": 0, "score_A": 3, "score_B": 9, "score_ratio": 3.0},
        },
        [{"prompt": "2+2?", "chosen": "4", "rejected": "5"}],
    ),
    "PKU-SafeRLHF": Shape(
        "safe_rlhf",
        {
            "prompt": "2+2?",
            "response_0": "5",
            "response_1": "4",
            **{"is_response_0_safe": True, "is_response_1_safe": True},
            **{"better_response_id": 1, "safer_response_id": 0},
        },
        [{"prompt": "2+2?", "chosen": "4", "rejected": "5"}],
    ),
    "Gemini and Vertex AI": Shape(
        "contents",
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "2+2?"}]},
                {"role": "model", "parts": [{"text": "4"}]},
            ],
        },
        [{"messages": [{"role": "system", "content": "Be brief."}, USER, FOUR]}],
    ),
    "Vertex AI preference": Shape(
        "contents",
        {
            "contents": [{"role": "user", "parts": [{"text": "2+2?"}]}],
            "completions": [
                {"score": 0.0, "completion": {"role": "model", "parts": [{"text": "5"}]}},
                {"score": 1.0, "completion": {"role": "model", "parts": [{"text": "4"}]}},
            ],
        },
        [{"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}],
    ),
    "verl": Shape(
        "verl",
        {
            "data_source": "openai/gsm8k",
            "prompt": [USER],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "4"},
            "extra_info": {"split": "train", "index": 0},
        },
        [{"prompt": [USER], "answer": "4", "data_source": "openai/gsm8k"}],
    ),
    "verl, facts by name": Shape(
        "verl",
        {
            "data_source": "countdown",
            "prompt": [USER],
            "reward_model": {"ground_truth": {"target": 10, "numbers": [3, 7]}},
        },
        [{"prompt": [USER], "target": 10, "numbers": [3, 7], "data_source": "countdown"}],
    ),
    "Tulu 3 RLVR": Shape(
        "rlvr",
        {
            "messages": [USER],
            "ground_truth": "4",
            "dataset": "gsm8k",
            "constraint_type": "",
            "constraint": "",
        },
        [{"prompt": [USER], "answer": "4", "dataset": "gsm8k"}],
    ),
    "PRM800K": Shape(
        "prm800k",
        {
            "labeler": "l",
            "question": {"problem": "What is 2+2+2?", "ground_truth_answer": "6"},
            "label": {
                "steps": [
                    {
                        "completions": [
                            {"text": "2+2 is 4.", "rating": 1, "flagged": None},
                            {"text": "2+2 is 5.", "rating": -1, "flagged": None},
                        ],
                        "human_completion": None,
                        "chosen_completion": 0,
                    },
                    {
                        "completions": [{"text": "So 6.", "rating": 0, "flagged": None}],
                        "human_completion": None,
                        "chosen_completion": None,
                    },
                ],
                "finish_reason": "solution",
            },
        },
        [
            {"prompt": "What is 2+2+2?\n\n", "completion": "2+2 is 4.", "score": 1.0},
            {"prompt": "What is 2+2+2?\n\n", "completion": "2+2 is 5.", "score": 0.0},
            {"prompt": "What is 2+2+2?\n\n2+2 is 4.\n", "completion": "So 6.", "score": 0.5},
        ],
    ),
    "TRL stepwise": Shape(
        "stepwise",
        {"prompt": "2+2+2?", "completions": ["2+2 is 4.", "So 7."], "labels": [True, False]},
        [
            {"prompt": "2+2+2?\n", "completion": "2+2 is 4.", "label": True},
            {"prompt": "2+2+2?\n2+2 is 4.\n", "completion": "So 7.", "label": False},
        ],
    ),
    "Orca pair": Shape(
        "orca",
        {"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"},
        [
            {
                "prompt": [{"role": "system", "content": "Be brief."}, USER],
                "chosen": [FOUR],
                "rejected": [FIVE],
            }
        ],
    ),
    "Open Orca": Shape(
        "orca",
        {"id": "niv.1", "system_prompt": "", "question": "2+2?", "response": "4"},
        [{"prompt": "2+2?", "completion": "4"}],
    ),
    "Dolly": Shape(
        "dolly",
        {"instruction": "Add.", "context": "2, 2", "response": "4", "category": "closed_qa"},
        [{"prompt": "Add.\n\n2, 2", "completion": "4"}],
    ),
    "Argilla 2 records": Shape(
        "argilla",
        {
            "id": "r1",
            "status": "completed",
            "fields": {"prompt": "2+2?", "response": "4"},
            "responses": {"rating": [{"value": 1, "user_id": "u1"}]},
            "suggestions": {},
        },
        [{"prompt": "2+2?", "completion": "4", "score": 1.0, "raters": 1, "spread": 0.0}],
    ),
    "Argilla 2 table": Shape(
        "argilla",
        {
            "instruction": "2+2?",
            "response": "4",
            "good.responses": ["yes", "no"],
            "good.responses.users": ["u1", "u2"],
            "good.responses.status": ["submitted", "discarded"],
        },
        [{"prompt": "2+2?", "completion": "4", "label": True, "raters": 1, "agree": 1.0}],
    ),
    "Argilla 1 records": Shape(
        "argilla",
        {
            "fields": {"prompt": "2+2?", "response-1": "5", "response-2": "4"},
            "responses": [
                {
                    "user_id": "u1",
                    "status": "submitted",
                    "values": {
                        "best": {
                            "value": [
                                {"value": "response-1", "rank": 2},
                                {"value": "response-2", "rank": 1},
                            ]
                        }
                    },
                }
            ],
        },
        [{"prompt": "2+2?", "chosen": "4", "rejected": "5", "raters": 1, "agree": 1.0}],
    ),
    "Argilla 1 table": Shape(
        "argilla",
        {
            "prompt": "2+2?",
            "response": "4",
            "rating": [
                {"user_id": "u1", "value": 1, "status": "submitted"},
                {"user_id": "u2", "value": 0, "status": "submitted"},
            ],
        },
        [{"prompt": "2+2?", "completion": "4", "score": 0.5, "raters": 2, "spread": 0.5}],
    ),
    "Label Studio rating": Shape(
        "label_studio",
        {
            "id": 1,
            "data": {"prompt": "2+2?", "response": "4"},
            "annotations": [
                {"completed_by": 7, "was_cancelled": True, "result": []},
                {
                    "completed_by": {"email": "ann"},
                    "was_cancelled": False,
                    "result": [{"from_name": "r", "type": "rating", "value": {"rating": 1}}],
                },
            ],
        },
        [{"prompt": "2+2?", "completion": "4", "score": 1.0, "raters": 1, "spread": 0.0}],
    ),
    "Label Studio choices": Shape(
        "label_studio",
        {
            "data": {"question": "2+2?", "answer": "5"},
            "annotations": [
                {"completed_by": 7, "result": [{"type": "choices", "value": {"choices": ["Bad"]}}]}
            ],
        },
        [{"prompt": "2+2?", "completion": "5", "label": False, "raters": 1, "agree": 1.0}],
    ),
    "Label Studio pairwise": Shape(
        "label_studio",
        {
            "data": {"prompt": "2+2?", "answer1": "5", "answer2": "4"},
            "annotations": [
                {
                    "completed_by": 7,
                    "result": [{"type": "pairwise", "value": {"selected": "right"}}],
                }
            ],
        },
        [{"prompt": "2+2?", "chosen": "4", "rejected": "5", "raters": 1, "agree": 1.0}],
    ),
    "ratings in a list": Shape(
        "rated",
        {
            "prompt": "2+2?",
            "completion": "4",
            "ratings": "[1, 0, 1]",
            "annotators": '["a", "b", "c"]',
        },
        [{"prompt": "2+2?", "completion": "4", "score": 2 / 3, "raters": 3, "spread": 0.471405}],
    ),
}

OURS = {
    "messages": {"messages": [USER, FOUR]},
    "OpenAI messages in parts, weighted": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}],
            },
            {**FIVE, "weight": 0},
            USER,
            {"role": "assistant", "content": [PART | {"text": "4"}]},
        ],
        "tools": [],
    },
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
    },
    "ShareGPT with calls": {
        "conversations": [
            {"from": "human", "value": "2+2?"},
            {"from": "function_call", "value": CALL},
            {"from": "observation", "value": "4"},
            {"from": "gpt", "value": "4"},
        ],
        "tools": "[]",
    },
    "Alpaca": {"instruction": "Add.", "input": "2, 2", "output": "4"},
    "Alpaca with system and history": {
        "instruction": "2+2?",
        "input": "",
        "output": "4",
        "system": "Be brief.",
        "history": [["Hi.", "Hello: how can I help?"]],
    },
    "prompt and completion": {"prompt": "2+2?", "completion": "4"},
    "KTO labels as text": {"prompt": "2+2?", "completion": "4", "label": "True"},
    "scores as text": {"prompt": "2+2?", "completion": "4", "score": "0.8"},
    "pair": {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
    "pair of conversations": {"chosen": [USER, FOUR], "rejected": [USER, FIVE]},
    "group": {"prompt": "2+2?", "completions": ["4", "5"], "scores": ["1", 0]},
    "text": {"text": "Plain."},
    "problem": {"prompt": "2+2?", "answer": "4"},
    "problem with a solution": {
        "prompt": "2+2? ",
        "solution": ["2+2 is 4.\n"],
        "completion": "2+2 is 4.\nSo 4",
        "kind": "check",
        "nums": [2, 2],
    },
}
"""Rows that are read as they are."""
