"""Image classification: data sets and reference networks."""

from ohmloop.tasks._images import _cifar, _folder, _mnist

ENTRIES = {**_mnist.ENTRIES, **_cifar.ENTRIES, **_folder.ENTRIES}
DATA = {**_mnist.DATA, **_cifar.DATA, **_folder.DATA}
