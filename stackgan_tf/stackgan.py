"""The game that both stages play. StackGAN (arXiv:1612.03242), Sec. 3.3 and 3.4."""

import tensorflow as tf

from stackgan_tf import augment, blocks, losses
from stackgan_tf import latents as random_latents


class StackGAN:
    """A generator against a matching-aware discriminator, in either stage, with or without text.

    Args:
        generator, discriminator: of stage1.py or stage2.py.
        latent_dims: {name: size} of the random tensors: `noise` and, with conditioning
            augmentation, `epsilon`.
        loss: a row of losses.LOSSES.
        kl_weight: factor of the conditioning augmentation's KL term, 0 without it.
        stage1: for Stage-II, the frozen function {noise, epsilon, embeddings} -> images.
        r1_weight, ma_gp_weight: factors of the penalties R1 and MA-GP, 0 (the paper) without.
        r1_every: the penalties are taken on each so-manieth real image of the batch.
        diff_augment: policies of augment.augment, of what the discriminator sees; none (the paper).
        sketch_weight: for Stage-II, factor of its images' distance to the sketches, 0 (the paper)
            without.
        mode_seeking_weight: factor of losses.mode_seeking_loss, 0 (the paper) without.
        matching_weight: factor of losses.matching_loss, 0 (the paper) without.
        joint_space: the joint_space.JointSpace for it.

    A batch is a dict of `real_images` float (B, H, W, 3) in [-1, 1] and, with text, `embeddings`
    and `mismatched_embeddings` (B, embedding_dim): the caption of the image, and the caption of an
    image of another class.
    """

    def __init__(self, generator, discriminator, latent_dims, loss="non_saturating",
                 kl_weight=2.0, stage1=None, r1_weight=0.0, r1_every=1, ma_gp_weight=0.0,
                 diff_augment=(), sketch_weight=0.0, mode_seeking_weight=0.0,
                 matching_weight=0.0, joint_space=None):
        self.generator = generator
        self.discriminator = discriminator
        self.latent_dims = latent_dims
        self.d_loss, self.g_loss = losses.LOSSES[loss]
        self.kl_weight = kl_weight
        self.stage1 = stage1
        self.r1_weight, self.ma_gp_weight = r1_weight, ma_gp_weight
        self.r1_every = r1_every if r1_weight or ma_gp_weight else 1
        self.diff_augment = diff_augment
        self.sketch_weight = sketch_weight
        self.mode_seeking_weight = mode_seeking_weight
        self.matching_weight, self.joint_space = matching_weight, joint_space

    def draw_latents(self, seed, batch_size):
        """Every random tensor of a step, as a function of the seed (int32 (2,)) alone.

        Stage-II reads the same epsilon as its Stage-I, through its own layer: one set of latents
        is one picture. With diff_augment there is `augmentation` (B, 14) beside them, for the real
        images and for the fakes; with mode_seeking_weight `again` (B, all sizes together), other
        latents of the same captions.
        """
        drawn = random_latents.draw(self.latent_dims, seed, batch_size)
        if self.diff_augment:
            own = tf.random.experimental.stateless_fold_in(seed, 0, alg="philox")
            drawn["augmentation"] = random_latents.uniform(own, [batch_size, 2 * augment.NUMBERS])
        if self.mode_seeking_weight:
            own = tf.random.experimental.stateless_fold_in(seed, 1, alg="philox")
            sizes = sum(self.latent_dims.values())
            drawn["again"] = random_latents.normal(own, [batch_size, sizes])
        return drawn

    def generate(self, latents, embeddings=None, training=False, generator=None):
        """The generator's dict of `images` (B, H, W, 3), `mean` and `log_sigma`; in Stage-II with
        the frozen Stage-I's `stage1_images`. With `again` among the latents there are
        `again_images`, of these and each losses.AGAIN_EVERY-th caption.

        `generator` stands in for the live one: the moving average, when sampling.
        """
        inputs = dict(latents)
        if embeddings is not None:
            inputs["embeddings"] = embeddings
        if "again" in latents:  # in one call with the others: one batch for batch norm
            inputs = self._with_second(inputs)
        if self.stage1 is not None:
            # Frozen: no gradient, inference mode, so its batch-norm statistics stay put.
            inputs["stage1_images"] = tf.stop_gradient(self.stage1(inputs))
        output = (generator or self.generator)(inputs, training=training)
        if self.stage1 is not None:
            output["stage1_images"] = inputs["stage1_images"]
        if "again" in latents:
            images, rows = output["images"], tf.shape(latents["noise"])[0]
            output = {name: value[:rows] for name, value in output.items()}
            output["again_images"] = images[rows:]
        return output

    def _with_second(self, inputs):
        """`inputs`, and under them some of their rows once more, with the latents `again`."""
        second, sizes = dict(inputs), list(self.latent_dims.values())
        second |= zip(self.latent_dims, tf.split(inputs["again"], sizes, -1), strict=True)
        return {name: tf.concat([value, second[name][::losses.AGAIN_EVERY]], 0)
                for name, value in inputs.items()}

    def discriminator_loss(self, batch, fake_images, latents=None):
        """real/right caption against fake/right caption and real/WRONG caption, each half.

        The features of the real images are computed once for the right and the wrong pair.
        `fake_images` (B, H, W, 3) are the generator's for the batch's embeddings, `latents` those
        of the step, which diff_augment needs.
        Returns the scalar and {name: scalar} for the log.
        """
        embeddings = batch.get("embeddings")
        d = self.discriminator
        blocks.power_iterations(d)  # once a step: the generator is judged by the same networks
        numbers, fake_numbers = self._numbers(latents)
        real, penalties = self._real_features(batch["real_images"], embeddings, numbers)
        real_logits = [d.logits(real, self._r1_first(embeddings), True)]
        fake = d.features(self._seen(fake_images, fake_numbers), True)
        fake_logits = [d.logits(fake, embeddings, True)]
        parts = {"logits/real": real_logits[0], "logits/fake": fake_logits[0]}
        if embeddings is not None:
            wrong = self._r1_first(batch["mismatched_embeddings"])
            fake_logits.append(d.logits(real, wrong, True))
            parts["logits/wrong"] = fake_logits[1]
        if d.unconditional_head is not None:
            real_logits.append(d.unconditional_head(real, training=True))
            fake_logits.append(d.unconditional_head(fake, training=True))
        # Averaging over the joined logits gives real + (fake + wrong) / 2 and, with the second
        # head, the released (real + real_u) / 2 + (fake + wrong + fake_u) / 3.
        loss = self.d_loss(tf.concat(real_logits, 0), tf.concat(fake_logits, 0))
        parts = {name: tf.reduce_mean(value) for name, value in parts.items()}
        for name, weight in (("r1", self.r1_weight), ("ma_gp", self.ma_gp_weight)):
            if weight:
                parts[f"loss/{name}"] = penalties[name]
                loss += weight * penalties[name]
        parts["accuracy/real"] = tf.reduce_mean(tf.cast(real_logits[0] > 0.0, tf.float32))
        parts["accuracy/fake"] = tf.reduce_mean(tf.cast(fake_logits[0] < 0.0, tf.float32))
        return loss, {"loss/discriminator": loss, **parts}

    def _numbers(self, latents):
        """The augmentation's of the real images and of the fakes."""
        return tf.split(latents["augmentation"], 2, -1) if self.diff_augment else (None, None)

    def _seen(self, images, numbers):
        """The images as the discriminator sees them."""
        return augment.augment(images, numbers, self.diff_augment) if self.diff_augment else images

    def _real_features(self, images, embeddings, numbers):
        """The discriminator's features of the real images, in the order of `_r1_first`, and
        {name: penalty} of the gradients there.

        A penalty takes a second and a third way through the network. Each r1_every-th image has
        it, the others go through by themselves; on average it is the same. Its gradient is by the
        images as they are, and not as diff_augment changes them: so does its released code.
        """
        d, every = self.discriminator, self.r1_every
        if not (self.r1_weight or self.ma_gp_weight):
            return d.features(self._seen(images, numbers), True), {}
        first, some_numbers, text = (rows if rows is None else rows[::every]
                                     for rows in (images, numbers, embeddings))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            by = [first] if text is None or not self.ma_gp_weight else [first, text]
            tape.watch(by)
            features = d.features(self._seen(first, some_numbers), True)
            logits = d.logits(features, text, True)
        gradients, penalties = tape.gradient(logits, by), {}
        if self.r1_weight:
            penalties["r1"] = losses.r1_penalty(gradients[0])
        if self.ma_gp_weight:
            penalties["ma_gp"] = losses.matching_aware_penalty(*gradients)
        if every > 1 and images.shape[0] != 1:
            others, other_numbers = (
                rows if rows is None else tf.concat([rows[i::every] for i in range(1, every)], 0)
                for rows in (images, numbers))
            others = d.features(self._seen(others, other_numbers), True)
            features = tf.concat([features, others], 0)
        return features, penalties

    def _r1_first(self, rows):
        """Rows 0, r1_every, 2 r1_every ..., then 1, r1_every + 1 ...: the same in a part of the
        batch that is a multiple of r1_every, as each replica has."""
        if rows is None or self.r1_every == 1:
            return rows
        return tf.concat([rows[i::self.r1_every] for i in range(self.r1_every)], 0)

    def generator_loss(self, batch, output, latents=None):
        """The fakes shall pass as real with their captions; plus kl_weight * KL, the mode-seeking
        and the matching loss and, in Stage-II, sketch_weight * the distance to the sketches.

        `output` is `generate`'s for the batch's embeddings, `latents` as above.
        Returns the scalar and {name: scalar} for the log.
        """
        embeddings = batch.get("embeddings")
        d = self.discriminator
        features = d.features(self._seen(output["images"], self._numbers(latents)[1]), True)
        adversarial = self.g_loss(d.logits(features, embeddings, True))
        if d.unconditional_head is not None:
            adversarial += self.g_loss(d.unconditional_head(features, training=True))
        loss, parts = adversarial, {"loss/adversarial": adversarial}
        if self.kl_weight and "mean" in output:
            kl = losses.kl_divergence(output["mean"], output["log_sigma"])
            loss += self.kl_weight * kl
            parts["loss/kl"] = kl
        if self.sketch_weight:
            distance = losses.sketch_distance(output["images"], output["stage1_images"])
            loss += self.sketch_weight * distance
            parts["loss/sketch"] = distance
        if self.mode_seeking_weight:
            alike = losses.mode_seeking_loss(output["images"][::losses.AGAIN_EVERY],
                                             output["again_images"])
            loss += self.mode_seeking_weight * alike
            parts["loss/mode_seeking"] = alike
        if self.matching_weight:
            matching = self._matching_loss(output["images"], embeddings)
            loss += self.matching_weight * matching
            parts["loss/matching"] = matching
        return loss, {"loss/generator": loss, **parts}

    def _matching_loss(self, images, embeddings):
        """Among the captions of all replicas, as one device would see them."""
        own, captions = tf.range(tf.shape(images)[0]), self.joint_space.of_embeddings(embeddings)
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            own += context.replica_id_in_sync_group * tf.shape(images)[0]
            captions = context.all_gather(captions, 0)
        return losses.matching_loss(self.joint_space.of_images(images), captions, own)
