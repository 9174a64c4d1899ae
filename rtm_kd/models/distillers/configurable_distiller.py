import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional, Union

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from torch import nn

from rtm_kd.registry import MODELS, SCOPE, model_class
from rtm_kd.utils.errors import UsageError, near_misses
from rtm_kd.utils.randomness import preserved_randomness

from ..connectors.batch_statistics_norm import BatchStatisticsNorm
from ..losses import ChannelWiseDivergence
from .recorder import Records

# What the connectors, ours and MMRazor's, call the channels that come in and go out.
_INCOMING = ('in_channel', 'in_channels')
_OUTGOING = ('out_channel', 'out_channels')
_SCALES = ('batch_size', 'world_size')


@MODELS.register_module()
class ConfigurableDistiller(BaseModule):
    """Which features are compared, through which connectors, by which losses.

    Takes the arguments of MMRazor's distiller of this name. Types without a scope are
    looked up in ``rtm_kd``; ``mmrazor.PKDLoss`` and the like work as well.

    Args:
        student_recorders (dict): Recorder name -> ``dict(type='ModuleOutputs',
            source='neck.out_layers.0.conv')``.
        teacher_recorders (dict): The same for the teacher.
        connectors (dict, optional): Connector name -> its config, or a list of configs
            that run one after the other. Channels that a config leaves out (``in_channel``,
            ``out_channels`` and the like) follow from the models, see :meth:`fit_connectors`.
        distill_losses (dict): Loss name -> its config. A name with "loss" in it is added
            to the total, any other is only logged.
        loss_forward_mappings (dict): Loss name -> argument of its forward ->
            ``dict(from_student=bool, recorder=str, connector=str)``, and where needed
            ``record_idx`` (which call of the module, default 0), ``data_idx`` (which of
            its outputs) and ``connector_idx`` (which output of the connector).
        scale_by (tuple[str]): What the student's head multiplies its own losses by, so that
            those of distillation keep their share: ``'batch_size'``, the images of a process's
            step, and ``'world_size'``, the number of processes. Defaults to (), nothing.
        distill_deliveries (dict, optional): Not supported.
        init_cfg (dict, optional): Initialisation of the connectors.

    Raises:
        ValueError: If a name refers to nothing, no mapping names a loss or connector, or a type
            of recorder is not supported.
    """

    def __init__(
        self,
        student_recorders: dict[str, dict],
        teacher_recorders: dict[str, dict],
        distill_losses: dict[str, dict],
        loss_forward_mappings: dict[str, dict[str, dict]],
        connectors: Optional[dict[str, Union[dict, list[dict]]]] = None,
        scale_by: Sequence[str] = (),
        distill_deliveries: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(init_cfg)
        if distill_deliveries:
            raise UsageError(
                f'distill_deliveries {list(distill_deliveries)} are not supported here; '
                'use mmrazor.ConfigurableDistiller with mmrazor.SingleTeacherDistill'
            )
        if not isinstance(scale_by, (list, tuple)) or any(name not in _SCALES for name in scale_by):
            raise UsageError(f'scale_by must be a tuple of some of {_SCALES}, got {scale_by!r}')
        self.scale_by = tuple(scale_by)
        # Whether connectors and losses run module by module, as MMRazor's do, instead of
        # PKD's norms and the divergence as one function. The algorithm says.
        self.reference = False
        self.student_sources = _sources(student_recorders, 'student_recorders')
        self.teacher_sources = _sources(teacher_recorders, 'teacher_recorders')
        #: Connector name -> its config, with all channels once :meth:`fit_connectors` has run.
        self.connector_cfgs = dict(connectors or {})
        # In the order of the config, which is that of the checkpoint; None until it is fitted.
        self.connectors = nn.ModuleDict(
            {
                name: None if any(map(_missing_channels, _parts(cfg))) else _build_connector(cfg)
                for name, cfg in self.connector_cfgs.items()
            }
        )
        self.distill_losses = nn.ModuleDict(
            {name: _build(cfg) for name, cfg in distill_losses.items()}
        )
        self.loss_forward_mappings = loss_forward_mappings
        self._check_names()
        self._freeze_what_is_not_trained()

    def init_weights(self) -> None:
        """Initialise the connectors, and leave the run's random numbers as they are."""
        with preserved_randomness():
            super().init_weights()

    def compute_distill_losses(
        self, student_records: Records, teacher_records: Records, batch_size: int = 1
    ) -> dict[str, torch.Tensor]:
        """Compare the recorded features.

        Args:
            student_records (dict[str, list[Tensor]]): Recorder name -> its features, each
                usually (N, C, H, W).
            teacher_records (dict[str, list[Tensor]]): The same for the teacher.
            batch_size (int): Images that they were recorded of, for ``scale_by``.

        Returns:
            dict[str, Tensor]: Loss name -> loss.
        """
        scales = {'batch_size': batch_size, 'world_size': get_world_size()}
        scale = math.prod(scales[name] for name in self.scale_by)
        losses = {}
        for loss_name, mapping in self.loss_forward_mappings.items():
            loss = self.distill_losses[loss_name]
            fused = None if self.reference else self._fused(loss, mapping)
            if fused is not None:
                mapping, loss = fused
            arguments = {
                argument: self._feature(
                    student_records,
                    teacher_records,
                    # Other connectors expect the teacher in the student's precision.
                    as_float32=fused is None and not (self.reference or location['from_student']),
                    **location,
                )
                for argument, location in mapping.items()
            }
            if fused is None and not self.reference:
                # Mixed precision leaves it to the loss: on a CPU even a softmax stays halved.
                arguments = {name: _as_float32(value) for name, value in arguments.items()}
            losses[loss_name] = loss(**arguments) * scale
        return losses

    def _fused(
        self, loss: nn.Module, mapping: dict[str, dict]
    ) -> Optional[tuple[dict[str, dict], Callable[..., torch.Tensor]]]:
        """Let PKD's norms and the divergence after them run as one function, if it is those.

        Returns:
            The mapping to what comes before the norms, and the function; None for any other
            loss or connector.
        """
        if type(loss) is not ChannelWiseDivergence or set(mapping) != {'preds_S', 'preds_T'}:
            return None
        before, eps = {}, {}
        for argument, location in mapping.items():
            name = location.get('connector')
            connector = None if name is None else self.connectors[name]
            split = connector.split_norm() if hasattr(connector, 'split_norm') else None
            before_norm, norm = split or (None, None)
            if not isinstance(norm, BatchStatisticsNorm) or 'connector_idx' in location:
                return None
            before[argument] = {**location, 'connector': before_norm}
            eps[argument[-1]] = norm.eps
        return before, functools.partial(loss.fused_with_norm, eps_S=eps['S'], eps_T=eps['T'])

    def _feature(
        self,
        student_records: Records,
        teacher_records: Records,
        recorder: str,
        from_student: bool,
        record_idx: int = 0,
        data_idx: Optional[int] = None,
        connector: Union[str, nn.Module, None] = None,
        connector_idx: Optional[int] = None,
        as_float32: bool = False,
    ) -> Any:
        records = student_records if from_student else teacher_records
        feature = records[recorder][record_idx]
        if as_float32:
            feature = _as_float32(feature)
        if data_idx is not None:
            feature = feature[data_idx]
        if isinstance(connector, str):
            connector = self.connectors[connector]
        if connector is not None:
            feature = connector(feature)
        return feature if connector_idx is None else feature[connector_idx]

    @torch.no_grad()
    def fit_connectors(self, student_records: Records, teacher_records: Records) -> None:
        """Build the connectors whose channels were left out; raise unless everything fits.

        Channels that come in are those of the recorded features. Those that go out are the
        ones that the loss compares with, the teacher's behind their own connector.

        Args:
            student_records (dict[str, list[Tensor]]): Recorder name -> its features.
            teacher_records (dict[str, list[Tensor]]): The same for the teacher.

        Raises:
            ValueError: Naming the connector or loss, what it got and what it expects.
        """
        # First those that say what others are to become: losses that compare with the teacher,
        # and of their arguments the ones whose channels are known, then the teacher's.
        for loss_name, mapping in sorted(
            self.loss_forward_mappings.items(),
            key=lambda item: all(location['from_student'] for location in item[1].values()),
        ):
            arguments = {}
            for argument, location in sorted(
                mapping.items(),
                key=lambda item: (self._is_unfitted(item[1]), item[1]['from_student']),
            ):
                _check_record(student_records, teacher_records, location)
                raw = self._feature(
                    student_records,
                    teacher_records,
                    **{k: v for k, v in location.items() if not k.startswith('connector')},
                )
                if location.get('connector') is not None:
                    self._check_is_tensor(location, raw)
                    target = next(filter(torch.is_tensor, arguments.values()), raw)
                    self._fit_connector(location, raw, target)
                arguments[argument] = self._feature(student_records, teacher_records, **location)
            try:
                self.distill_losses[loss_name](**arguments)
            except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
                shapes = {name: _shape(value) for name, value in arguments.items()}
                raise UsageError(
                    self._differing_sizes(mapping, arguments)
                    or f'the loss "{loss_name}" can\'t compare features of shape {shapes}: {error}'
                ) from error
        self._freeze_what_is_not_trained()

    def _is_unfitted(self, location: dict) -> bool:
        name = location.get('connector')
        return name is not None and self.connectors[name] is None

    def _fit_connector(self, location: dict, feature: torch.Tensor, target: torch.Tensor) -> None:
        name = location['connector']
        if self._is_unfitted(location):
            cfg = _with_channels(self.connector_cfgs[name], feature.shape[1], target.shape[1])
            self.connector_cfgs[name] = cfg
            self.connectors[name] = _build_connector(cfg).eval()
        got = f'{self._source(location)} gives {feature.shape[1]} channels'
        first = self.connectors[name]
        first = first[0] if isinstance(first, nn.Sequential) else first
        expected = getattr(first, 'in_channels', feature.shape[1])
        if expected != feature.shape[1]:
            raise UsageError(f'connector "{name}" expects {expected} channels, but {got}')
        try:
            self.connectors[name](feature)
        except RuntimeError as error:
            raise UsageError(f'connector "{name}" does not fit: {got}; {error}') from error

    def _check_is_tensor(self, location: dict, feature: Any) -> None:
        if isinstance(feature, (list, tuple)):
            raise UsageError(
                f'{self._source(location)} gives {len(feature)} outputs; say which one with '
                f'data_idx=0 to {len(feature) - 1} in loss_forward_mappings'
            )
        if not torch.is_tensor(feature) or feature.dim() < 2:
            raise UsageError(
                f'{self._source(location)} gives {_shape(feature)}, and no feature map to compare'
            )

    def _differing_sizes(
        self, mapping: dict[str, dict], arguments: dict[str, Any]
    ) -> Optional[str]:
        """Say in a sentence that feature maps differ in height and width, None if they do not."""
        maps = [
            (self._source(mapping[argument]), 'x'.join(map(str, feature.shape[2:])))
            for argument, feature in arguments.items()
            if torch.is_tensor(feature)
        ]
        for (one, size), (other, other_size) in itertools.combinations(maps, 2):
            if size != other_size:
                return (
                    f'on one image {one} gives a map of {size} and {other} one of {other_size}, '
                    'and they are compared position by position; record levels of one stride'
                )
        return None

    def _source(self, location: dict) -> str:
        side = 'student' if location['from_student'] else 'teacher'
        sources = self.student_sources if location['from_student'] else self.teacher_sources
        return f'"{sources[location["recorder"]]}" of the {side}'

    def _check_names(self) -> None:
        for loss_name, mapping in self.loss_forward_mappings.items():
            where = f'loss_forward_mappings["{loss_name}"]'
            _check_known(where, 'distill_losses', loss_name, self.distill_losses)
            accepted = inspect.signature(self.distill_losses[loss_name].forward).parameters
            for argument, location in mapping.items():
                _check_known(f'{where}["{argument}"]', 'arguments of the loss', argument, accepted)
                if not isinstance(location.get('from_student'), bool):
                    raise UsageError(
                        f'{where}["{argument}"] needs from_student=True or False, '
                        f'got {location.get("from_student")!r}'
                    )
                side = 'student' if location['from_student'] else 'teacher'
                _check_known(
                    f'{where}["{argument}"]',
                    f'{side}_recorders',
                    location.get('recorder'),
                    getattr(self, f'{side}_sources'),
                )
                if location.get('connector') is not None:
                    _check_known(
                        f'{where}["{argument}"]',
                        'connectors',
                        location['connector'],
                        self.connectors,
                    )
            missing = [
                name
                for name, parameter in accepted.items()
                if parameter.default is parameter.empty
                and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
                and name not in mapping
            ]
            if missing:
                raise UsageError(f'{where} gives no value for {missing} of the loss')
        unused = [name for name in self.distill_losses if name not in self.loss_forward_mappings]
        if unused:
            raise UsageError(
                f'distill_losses {unused} have no entry in loss_forward_mappings, '
                'so they would never be computed; add one or remove the loss'
            )
        used = self._connectors_of(self.loss_forward_mappings)
        unused = [name for name in self.connectors if name not in used]
        if unused:
            raise UsageError(
                f'connectors {unused} are in no loss_forward_mappings, so no loss would train '
                'them; name each in one or remove it'
            )

    def _connectors_of(self, losses: Iterable[str]) -> set[str]:
        return {
            location['connector']
            for loss_name in losses
            for location in self.loss_forward_mappings[loss_name].values()
            if location.get('connector') is not None
        }

    def _freeze_what_is_not_trained(self) -> None:
        # A loss that is only logged gives no gradient, and DDP waits for one of every weight.
        trained = self._connectors_of(name for name in self.loss_forward_mappings if 'loss' in name)
        for name, connector in self.connectors.items():
            if name not in trained and connector is not None:
                connector.requires_grad_(False)


def _check_known(where: str, what: str, name: str, known) -> None:
    if name not in known:
        raise UsageError(
            f'{where}: "{name}" is not one of the {what} {list(known)}'
            + near_misses(str(name), known)
        )


def _check_record(student_records: Records, teacher_records: Records, location: dict) -> None:
    recorder, record_idx = location['recorder'], location.get('record_idx', 0)
    outputs = (student_records if location['from_student'] else teacher_records)[recorder]
    if not -len(outputs) <= record_idx < len(outputs):
        raise UsageError(
            f'recorder "{recorder}" has {len(outputs)} record of each image batch, one for each '
            f'call of its module, so there is no record_idx={record_idx}'
        )


def _sources(recorders: dict[str, dict], argument: str) -> dict[str, str]:
    for name, recorder in recorders.items():
        if recorder.get('type') != 'ModuleOutputs' or not isinstance(recorder.get('source'), str):
            raise UsageError(
                f'{argument}["{name}"] must be dict(type="ModuleOutputs", source="a.module"), '
                f'got {dict(recorder)}'
            )
    return {name: recorder['source'] for name, recorder in recorders.items()}


def _shape(output: Any) -> Union[tuple, str]:
    return tuple(output.shape) if torch.is_tensor(output) else type(output).__name__


def _as_float32(output: Any) -> Any:
    if isinstance(output, (list, tuple)):
        return type(output)(_as_float32(part) for part in output)
    return output.float() if torch.is_tensor(output) and output.is_floating_point() else output


def _build(cfg: dict) -> nn.Module:
    return MODELS.build({'_scope_': SCOPE, **cfg})


def _parts(cfg: Union[dict, list[dict]]) -> list[dict]:
    return list(cfg) if isinstance(cfg, (list, tuple)) else [cfg]


def _build_connector(cfg: Union[dict, list[dict]]) -> nn.Module:
    built = [_build(part) for part in _parts(cfg)]
    return nn.Sequential(*built) if isinstance(cfg, (list, tuple)) else built[0]


def _with_channels(
    cfg: Union[dict, list[dict]], incoming: int, outgoing: int
) -> Union[dict, list[dict]]:
    """Return a connector's config with these channels wherever it leaves them out."""
    filled = []
    for part in _parts(cfg):
        channels = {
            name: incoming if name in _INCOMING else outgoing for name in _missing_channels(part)
        }
        filled.append({**part, **channels})
        incoming = next((filled[-1][name] for name in _OUTGOING if name in filled[-1]), incoming)
    return filled if isinstance(cfg, (list, tuple)) else filled[0]


def _missing_channels(cfg: dict) -> list[str]:
    """Names of the channel arguments that a connector needs and its config leaves out."""
    connector = model_class(cfg)
    if connector is None:
        return []
    return [
        name
        for name, parameter in inspect.signature(connector).parameters.items()
        if name in (*_INCOMING, *_OUTGOING)
        and parameter.default in (parameter.empty, None)
        and cfg.get(name) is None
    ]
