"""StackGAN in plain PyTorch, after the same layer tables as stackgan_tf: what it is timed against.

Same networks, losses, optimizer and moving average, so that a training step does the same
arithmetic. Pictures are (B, 3, H, W) in [-1, 1]. `config` is a stackgan_tf Config with text and
the paper's blocks: batch norm, no R1 penalty, no `condition_blocks` or `noise_injection`.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


def leaky(x):
    return F.leaky_relu(x, 0.2)


def batch_norm(channels, kind=nn.BatchNorm2d):
    return kind(channels, eps=1e-5, momentum=0.1)  # PyTorch's momentum is the new value's weight


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm (or none), activation; `up` doubles the map first."""

    def __init__(self, inner, outer, kernel, stride=1, activation=F.relu, norm=True, up=False):
        super().__init__()
        # TensorFlow's SAME: one pixel around for 3x3/s1 and 4x4/s2, none for 1x1
        self.conv = nn.Conv2d(inner, outer, kernel, stride, padding=(kernel - 1) // 2, bias=False)
        self.norm = batch_norm(outer) if norm else nn.Identity()
        self.activation, self.up = activation, up

    def forward(self, x):
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.activation(self.norm(self.conv(x)))

    def fold(self):
        """Puts the batch norm of a trained network into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = ConvNorm(channels, channels, 3)
        self.second = ConvNorm(channels, channels, 3, activation=nn.Identity())

    def forward(self, x):
        return F.relu(x + self.second(self.first(x)))


class ConditioningAugmentation(nn.Module):
    def __init__(self, embedding_dim, condition_dim):
        super().__init__()
        self.dense = nn.Linear(embedding_dim, 2 * condition_dim)

    def forward(self, embeddings, epsilon):
        mean, log_sigma = leaky(self.dense(embeddings)).float().chunk(2, 1)
        return mean + log_sigma.exp() * epsilon, mean, log_sigma


class Stage1Generator(nn.Module):
    """(noise, epsilon, embeddings) -> images, mean, log_sigma."""

    def __init__(self, config, image_size=64):
        super().__init__()
        self.channels = channels = 8 * config.generator_width
        self.conditioning_augmentation = ConditioningAugmentation(
            config.embedding_dim, config.condition_dim)
        self.fc = nn.Linear(config.noise_dim + config.condition_dim, 16 * channels, bias=False)
        self.fc_norm = batch_norm(16 * channels, nn.BatchNorm1d)
        self.up = nn.Sequential()
        for _ in range(image_size.bit_length() - 3):
            self.up.append(ConvNorm(channels, channels // 2, 3, up=True))
            channels //= 2
        self.to_rgb = nn.Conv2d(channels, 3, 3, padding=1, bias=False)

    def forward(self, noise, epsilon, embeddings):
        condition, mean, log_sigma = self.conditioning_augmentation(embeddings, epsilon)
        x = F.relu(self.fc_norm(self.fc(torch.cat([noise, condition], 1))))
        x = self.up(x.view(-1, self.channels, 4, 4))
        return torch.tanh(self.to_rgb(x)), mean, log_sigma


class Stage2Generator(nn.Module):
    """(stage1_images, epsilon, embeddings) -> images, mean, log_sigma."""

    def __init__(self, config, stage1_size=64):
        super().__init__()
        width = config.generator_width
        channels = 4 * width
        self.encoder = nn.Sequential(ConvNorm(3, width, 3, norm=False),
                                     ConvNorm(width, 2 * width, 4, 2),
                                     ConvNorm(2 * width, channels, 4, 2))
        self.conditioning_augmentation = ConditioningAugmentation(
            config.embedding_dim, config.condition_dim)
        self.joint = ConvNorm(channels + config.condition_dim, channels, 3)
        self.residual = nn.Sequential(*[Residual(channels) for _ in range(config.residual_blocks)])
        self.up = nn.Sequential()
        for _ in range((config.image_size // (stage1_size // 4)).bit_length() - 1):
            self.up.append(ConvNorm(channels, channels // 2, 3, up=True))
            channels //= 2
        self.to_rgb = nn.Conv2d(channels, 3, 3, padding=1, bias=False)

    def forward(self, stage1_images, epsilon, embeddings):
        x = self.encoder(stage1_images)
        condition, mean, log_sigma = self.conditioning_augmentation(embeddings, epsilon)
        everywhere = condition.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        x = self.up(self.residual(self.joint(torch.cat([x, everywhere], 1))))
        return torch.tanh(self.to_rgb(x)), mean, log_sigma


class Discriminator(nn.Module):
    """Of either stage. `features` is apart from `logits`, so that real pictures pass it once."""

    def __init__(self, config):
        super().__init__()
        width, halvings = config.discriminator_width, config.image_size.bit_length() - 3
        widths = [3] + [width * 2**i for i in range(halvings)]
        self.down = nn.Sequential(*[
            ConvNorm(inner, outer, 4, 2, leaky, norm=i > 0)
            for i, (inner, outer) in enumerate(zip(widths, widths[1:]))])
        self.narrow = nn.Sequential(OrderedDict(
            (str(i), ConvNorm(width * 2**(i + 1), width * 2**i, 3, 1, leaky))
            for i in range(halvings - 2, 2, -1)))
        self.text = nn.Linear(config.embedding_dim, config.condition_dim)
        self.joint = ConvNorm(8 * width + config.condition_dim, 8 * width, 1, 1, leaky)
        self.logit = nn.Conv2d(8 * width, 1, 4, bias=False)
        self.unconditional = None
        if config.unconditional_head:
            self.unconditional = nn.Conv2d(8 * width, 1, 4, bias=False)

    def features(self, images):
        return self.narrow(self.down(images))

    def logits(self, features, embeddings):
        """One float32 tensor (B,) for each head."""
        text = leaky(self.text(embeddings)).to(features.dtype)[:, :, None, None]
        joint = self.joint(torch.cat([features, text.expand(-1, -1, *features.shape[2:])], 1))
        found = [self.logit(joint)]
        if self.unconditional is not None:
            found.append(self.unconditional(features))
        return [logits.float().flatten() for logits in found]

    def forward(self, images, embeddings):
        return self.logits(self.features(images), embeddings)


class Game:
    """Both losses of a stage, as stackgan_tf/stackgan.py defines them.

    Args:
        generator, discriminator: in training mode.
        stage1: for Stage-II, the frozen generator below, in evaluation mode.
        kl_weight: factor of the conditioning augmentation's KL term.
        bfloat16: runs the networks under autocast.
    """

    def __init__(self, generator, discriminator, stage1=None, kl_weight=2.0, bfloat16=False):
        self.generator, self.discriminator, self.stage1 = generator, discriminator, stage1
        self.kl_weight, self.bfloat16 = kl_weight, bfloat16

    def autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)

    def generate(self, latents, embeddings):
        """images, mean, log_sigma; `latents` has `noise` and `epsilon`."""
        noise, epsilon = latents["noise"], latents["epsilon"]
        if self.stage1 is None:
            return self.generator(noise, epsilon, embeddings)
        with torch.no_grad():
            sketch = self.stage1(noise, epsilon, embeddings)[0]
        return self.generator(sketch, epsilon, embeddings)

    def discriminator_loss(self, batch, fake_images):
        d, embeddings = self.discriminator, batch["embeddings"]
        with self.autocast():
            features = d.features(batch["real_images"])
            real = d.logits(features, embeddings)
            wrong = d.logits(features, batch["mismatched_embeddings"])[:1]
            fake = d(fake_images.detach(), embeddings)
        return F.softplus(-torch.cat(real)).mean() + F.softplus(torch.cat(fake + wrong)).mean()

    def generator_loss(self, batch, made):
        """`made`: what `generate` gave, with its gradient."""
        images, mean, log_sigma = made
        with self.autocast():
            logits = self.discriminator(images, batch["embeddings"])
        adversarial = sum(F.softplus(-one).mean() for one in logits)
        kl = (-log_sigma + 0.5 * ((2 * log_sigma).exp() + mean**2 - 1)).mean()
        return adversarial + self.kl_weight * kl


class Trainer:
    """Adam for both networks, and the generator's moving average.

    Args:
        average: a copy of the generator, which becomes the moving average.
    """

    def __init__(self, game, average, config, learning_rate):
        self.game, self.decay = game, config.ema_decay
        self.dims = {"noise": config.noise_dim, "epsilon": config.condition_dim}
        self.steps = 0
        betas = (config.adam_beta1, config.adam_beta2)
        # fused: one pass over memory, the fastest that PyTorch has on a CPU
        self.g_adam, self.d_adam = (
            torch.optim.Adam(network.parameters(), learning_rate, betas, eps=1e-8, fused=True)
            for network in (game.generator, game.discriminator))
        self.average, self.live = (
            [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
            for network in (average, game.generator))

    def step(self, batch):
        """One discriminator step, one generator step, one of the average; returns both losses."""
        game, size = self.game, len(batch["real_images"])
        latents = {name: torch.randn(size, dim) for name, dim in self.dims.items()}
        with game.autocast():
            made = game.generate(latents, batch["embeddings"])
        d_loss = game.discriminator_loss(batch, made[0])
        self._update(d_loss, self.d_adam)
        game.discriminator.requires_grad_(False)  # its weights need no gradient from here
        g_loss = game.generator_loss(batch, made)
        self._update(g_loss, self.g_adam)
        game.discriminator.requires_grad_(True)
        self.steps += 1
        decay = min(self.decay, self.steps / (9 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.live, 1 - decay)
        return d_loss.item(), g_loss.item()

    def _update(self, loss, adam):
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
