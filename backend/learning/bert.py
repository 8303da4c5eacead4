"""The BERT network of all-MiniLM-L6-v2 in plain torch, from tokens to sentence embeddings.

Devlin, Chang, Lee & Toutanova, *BERT: pre-training of deep bidirectional transformers*, NAACL 2019; the weights
are distilled after Wang et al., *MiniLM*, NeurIPS 2020, and trained for sentences after Reimers & Gurevych,
*Sentence-BERT*, EMNLP 2019: the mean over a text's tokens, scaled to length 1.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional

WIDTH, INNER, HEADS, LAYERS = 384, 1536, 12, 6
WORDS, POSITIONS = 30_522, 512
_EPSILON = 1e-12
_FAR = -10_000.0  # of a softmax's input; minus infinity would make NaN of an empty text

# How the published state dict names what is named here; earlier lines are replaced first.
_NAMES = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "norm",
    "encoder.layer": "layers",
    "attention.self.": "",
    "attention.output.dense": "mixed",
    "attention.output.LayerNorm": "mixed_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "down_norm",
}
_UNUSED = ("pooler.", "embeddings.position_ids")


class Layer(torch.nn.Module):
    """Attention among a text's tokens, then a step for each token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mixed = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mixed_norm = torch.nn.LayerNorm(WIDTH, _EPSILON)
        self.up, self.down = torch.nn.Linear(WIDTH, INNER), torch.nn.Linear(INNER, WIDTH)
        self.down_norm = torch.nn.LayerNorm(WIDTH, _EPSILON)

    def forward(self, x: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """x (b, n, width); distance (b, 1, 1, n) is added to what each token says of the n others."""
        parts = (self.query(x), self.key(x), self.value(x))
        query, key, value = (part.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for part in parts)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=distance)
        x = self.mixed_norm(x + self.mixed(seen.transpose(1, 2).flatten(2)))
        out: torch.Tensor = self.down_norm(x + self.down(functional.gelu(self.up(x))))
        return out


class MiniLM(torch.nn.Module):
    """tokens int32 (b, n), 0 behind a text's end → embeddings float32 (b, 384) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, WIDTH)
        self.positions = torch.nn.Embedding(POSITIONS, WIDTH)
        self.types = torch.nn.Embedding(2, WIDTH)  # of sentence pairs: a text is always the first
        self.norm = torch.nn.LayerNorm(WIDTH, _EPSILON)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        is_text = tokens != 0
        distance = ((~is_text).float() * _FAR)[:, None, None, :]
        x = self.norm(self.words(tokens) + self.positions.weight[: tokens.shape[1]] + self.types.weight[0])
        for layer in self.layers:
            x = layer(x, distance)
        weights = is_text.float().unsqueeze(-1)
        mean = (x * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return functional.normalize(mean, dim=1)


def minilm(state: Mapping[str, torch.Tensor]) -> MiniLM:
    """The network with these published weights. Raises RuntimeError where they are another network's."""
    named = {}
    for name, tensor in state.items():
        if not name.startswith(_UNUSED):
            for theirs, ours in _NAMES.items():
                name = name.replace(theirs, ours)
            named[name] = tensor
    network = MiniLM()
    network.load_state_dict(named)
    return network.eval()
