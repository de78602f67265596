"""Adam in one pass over memory. Kingma & Ba 2015 (arXiv:1412.6980), Sec. 2, last paragraph."""

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """keras.optimizers.Adam by TensorFlow's one kernel for it: a weight, its two moments and its
    gradient are read once, where Keras makes about ten passes over all of them.

    The same variables, under the same names, so that the checkpoints of either fit the other.
    Under a tf.distribute strategy `apply` takes gradients that are summed over the replicas
    already: whoever wants to know their norm has summed them.
    """

    def _backend_update_step(self, gradients, variables, learning_rate):
        # each replica its own copy, without another sum
        for gradient, variable in zip(gradients, variables, strict=True):
            self.update_step(gradient, variable, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step), beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32), beta1=self.beta_1, beta2=self.beta_2,
            epsilon=self.epsilon, grad=tf.cast(gradient, variable.dtype))
