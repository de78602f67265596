"""The process that times PyTorch for benchmarks/throughput.py."""

import copy
import functools
import os

import torch

from benchmarks.processes import peak_memory, serve, timed
from benchmarks.torch_stackgan import (
    ConvNorm,
    Discriminator,
    Game,
    Stage1Generator,
    Stage2Generator,
    Trainer,
)
from stackgan_tf.config import Config


class Side:
    """Cases are loaded once, under a name, and then run as often as asked."""

    def __init__(self):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.set_flush_denormal(True)
        torch.manual_seed(0)
        self.cases = {}

    def load(self, name, settings, batch_size, mode, variant, learning_rate):
        """`variant`: words out of "bfloat16", "channels-last", "folded" and "compiled"."""
        config, bfloat16 = Config(**settings), "bfloat16" in variant
        layout = torch.channels_last if "channels-last" in variant else torch.contiguous_format
        stage1, generator = None, Stage1Generator(config, config.image_size)
        if config.stage == 2:
            stage1, generator = Stage1Generator(config).eval(), Stage2Generator(config)
        networks = [stage1, generator, copy.deepcopy(generator), Discriminator(config)]
        stage1, generator, average, discriminator = [
            network and network.to(memory_format=layout) for network in networks]
        embeddings = torch.randn(2, batch_size, config.embedding_dim)
        if mode == "train":
            images = torch.rand(batch_size, 3, config.image_size, config.image_size) * 2 - 1
            batch = {"real_images": images.contiguous(memory_format=layout),
                     "embeddings": embeddings[0], "mismatched_embeddings": embeddings[1]}
            game = Game(generator, discriminator, stage1, config.kl_weight, bfloat16)
            trainer = Trainer(game, average, config, learning_rate)
            if "compiled" in variant:
                for network in (stage1, generator, discriminator):
                    network and network.compile()
                discriminator.features = torch.compile(discriminator.features)
                discriminator.logits = torch.compile(discriminator.logits)
            step = functools.partial(trainer.step, batch)
        else:
            step = inference(generator, stage1, config, embeddings[0], bfloat16, variant)
        self.cases[name] = step, batch_size
        step()

    def run(self, name, seconds):
        """[pictures, seconds] of at least one call, and of as many as fit in `seconds`."""
        call, batch_size = self.cases[name]
        calls, taken = timed(call, seconds)
        return calls * batch_size, taken

    def peak(self, name, calls):
        """Bytes that the process held at most during so many calls."""
        return peak_memory(self.cases[name][0], calls)


def inference(generator, stage1, config, embeddings, bfloat16, variant):
    """A function that draws pictures, and hands them over in memory."""
    networks = [network.eval() for network in (stage1, generator) if network is not None]
    for network in networks:
        for module in network.modules():
            if "folded" in variant and isinstance(module, ConvNorm):
                module.fold()
        if "compiled" in variant:
            network.compile()
    game = Game(generator, None, stage1, bfloat16=bfloat16)
    latents = {"noise": torch.randn(len(embeddings), config.noise_dim),
               "epsilon": torch.randn(len(embeddings), config.condition_dim)}

    def draw():
        with torch.inference_mode(), game.autocast():
            return game.generate(latents, embeddings)[0].float().numpy()

    return draw


if __name__ == "__main__":
    serve(Side)
