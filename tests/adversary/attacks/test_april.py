"""One picture of vision transformers as people write them; what cannot be read is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from adversary.attacks import ATTACKS
from adversary.attacks.april import april
from adversary.inversion.patches import embedding_of
from clients.train import train
from fedsim.core.errors import NotApplicable
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining
from fedsim.models.vit import vit
from tests.adversary.inversion.inversion_cases import psnr
from tests.builders import observe, plain_gradient

SHAPE, CLASSES, WIDTH = (3, 12, 8), 4, 16  # six patches of 4×4
X = torch.rand(1, *SHAPE, generator=generator(0, "picture"))
LABEL = torch.tensor([1])


class Cut(nn.Module):
    """Tokens, made and placed in one of the ways that are in use, a block of attention, a head."""

    def __init__(self, cut: str, place: str = "rows", attention: str = "residual") -> None:
        super().__init__()
        self.cut, self.place, self.attention = cut, place, attention
        channels = SHAPE[0]
        self.conv = nn.Conv2d(channels, WIDTH, 4, stride=4)
        self.linear = nn.Linear(48, WIDTH)
        self.norm = nn.LayerNorm(48)
        if cut == "overlap":
            self.conv = nn.Conv2d(channels, WIDTH, 6, stride=4, padding=1)
        shapes = {"rows": (6, WIDTH), "picture": (1, WIDTH, 3, 2), "broadcast": (WIDTH, 3, 2)}
        self.positions = nn.Parameter(0.1 * torch.randn(shapes.get(place, (1, 6, WIDTH))))
        self.lookup = nn.Embedding(7, WIDTH)
        self.heads = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU())
        self.head = nn.Linear(6 * WIDTH, CLASSES)

    def tokens(self, x):
        if self.cut in ("conv", "overlap"):
            return self.conv(x)
        patches = functional.unfold(x, 4, stride=4).transpose(1, 2)
        patches = self.norm(patches) if self.cut == "normed" else patches
        return self.linear(patches).transpose(1, 2).unflatten(2, (3, 2))

    def placed(self, z):
        if self.place in ("picture", "broadcast"):
            return (z + self.positions).flatten(2).transpose(1, 2)
        z = z.flatten(2).transpose(1, 2)
        if self.place == "lookup":
            return z + self.lookup(1 + torch.arange(6))
        return z if self.place == "none" else z + self.positions

    def attended(self, z):
        if self.attention == "heads":
            return self.heads(z, z, z, need_weights=False)[0]
        if self.attention == "maps":
            scores = self.query(z) @ self.key(z).transpose(1, 2) / 4
            return scores.softmax(-1) @ self.value(z)
        return z + self.heads(z, z, z, need_weights=False)[0]

    def forward(self, x):
        z = self.attended(self.placed(self.tokens(x)))
        return self.head((z + self.mlp(z)).flatten(1))


def made(make):
    with global_stream(0, "made"):
        return make()


def recovered(model, x=X, label=LABEL, *, shape=SHAPE):
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(
        functional.cross_entropy(model(x), label), list(trained.values()), materialize_grads=True
    )
    view = observe(dict(zip(trained, slopes, strict=True)), len(label), sent=model)
    return april(view, Auxiliary(model, CLASSES, input_shape=shape), generator(0))


@pytest.mark.parametrize(("first", "layers"), [(True, 1), (True, 2), (False, 2)])
def test_a_vision_transformer_gives_its_picture_away(first, layers):
    model = made(lambda: vit(SHAPE, CLASSES, width=WIDTH, heads=2, layers=layers, first=first))
    assert psnr(recovered(model), X) > 40


def test_after_one_attention_without_norms_rows_repeat_each_other():
    make = lambda: vit(SHAPE, CLASSES, width=WIDTH, heads=2, layers=1, first=False)
    model, heads = made(make), 2
    gradient = plain_gradient(model, X, LABEL)
    slopes = embedding_of(model, SHAPE).rows(gradient["positions"])[1:]
    assert torch.linalg.matrix_rank(slopes, rtol=1e-5) <= 2 * heads  # a key's and a value's each


def test_torchvisions_too_and_a_border_without_patches_is_grey():
    from torchvision.models import VisionTransformer

    model = made(lambda: VisionTransformer(8, 4, 2, 2, WIDTH, 32, num_classes=CLASSES))
    x = X[:, :, :8]
    view = observe(plain_gradient(model, x, LABEL), 1, sent=model)
    auxiliary = Auxiliary(model, CLASSES, input_shape=(3, 8, 8))
    with pytest.raises(ValueError, match="a gradient must reach encoder.pos_embedding, got zero"):
        april(view, auxiliary, generator(0))  # its head is made of zeros
    nn.init.normal_(model.heads.head.weight, std=0.1)
    assert psnr(recovered(model, x, shape=(3, 8, 8)), x) > 40


@pytest.mark.parametrize("cut", ["conv", "linear"])
@pytest.mark.parametrize("place", ["rows", "batch", "picture", "broadcast", "lookup"])
def test_patches_and_positions_are_seen_however_they_are_written(cut, place):
    assert psnr(recovered(made(lambda: Cut(cut, place))), X) > 40


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("proximal_mu", [0.0, 0.5])
def test_any_number_of_local_steps_adds_up_alike(momentum, proximal_mu):
    local = LocalTraining(0.1, 1, 5, momentum=momentum, proximal_mu=proximal_mu)
    model = made(lambda: vit(SHAPE, CLASSES, width=WIDTH, heads=2, layers=2))
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    trained, _ = train(model, sent, X, LABEL, local, generator=generator(0, "order"))
    delta = {name: trained[name] - value for name, value in sent.items()}
    view = observe(delta, 1, sent=sent, local=local)
    answer = april(view, Auxiliary(model, CLASSES, input_shape=SHAPE), generator(0))
    assert psnr(answer, X) > 25  # weights are rounded


@pytest.mark.parametrize("attention", ["heads", "maps"])
def test_an_attention_that_takes_tokens_alone_gives_them_away_behind_a_frozen_embedding(attention):
    model = made(lambda: Cut("linear", "rows", attention))
    model.linear.requires_grad_(requires_grad=False)
    answer = recovered(model)
    here, there = (model.tokens(x) for x in (answer, X))  # 48 pixels in 16 features
    assert (here - there).norm() < 1e-3 * there.norm()


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Cut("conv", "none"), "a trained position embedding must be added to what conv"),
        (lambda: Cut("overlap"), "the patches of conv = Conv2d must not overlap"),
        (lambda: Cut("normed"), "linear = Linear must take the pixels of patches, each once"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(288, 4)), "a trained position embedding"),
        (lambda: nn.Sequential(nn.Flatten()), "the first layer must embed patches"),
        (lambda: nn.Sequential(nn.Linear(3, 4)), "a gradient of one example must be computable"),
    ],
)
def test_other_models_are_refused_in_a_sentence(make, rule):
    with pytest.raises(NotApplicable, match=f"patches: {rule}"):
        embedding_of(made(make), SHAPE)


def test_a_frozen_embedding_behind_a_residual_is_refused():
    model = made(lambda: Cut("conv"))
    model.conv.requires_grad_(requires_grad=False)
    with pytest.raises(NotApplicable, match="conv must be trained, or an attention must take"):
        recovered(model)


def test_a_batch_is_refused():
    model = made(lambda: Cut("conv"))
    with pytest.raises(NotApplicable, match="num_examples: must be 1"):
        recovered(model, X.expand(2, -1, -1, -1), LABEL.expand(2))


def test_an_upload_without_data_gives_nothing_near():
    model = made(lambda: Cut("conv"))
    noise = {n: torch.randn_like(p) for n, p in model.named_parameters()}
    view = observe(noise, 1, sent=model)
    answer = april(view, Auxiliary(model, CLASSES, input_shape=SHAPE), generator(0))
    grey = torch.full_like(X, 0.5)
    assert psnr(answer.clamp(0, 1), X) < psnr(grey, X)


def test_it_is_listed():
    assert ATTACKS["april"].family == "reconstruction"
