/**
 * The block "Notifications" in the editor. What it looks like is decided on the server.
 */
"use strict";

(({ blocks, blockEditor, components, element, i18n, serverSideRender }) => {
  const { createElement: make, Fragment } = element;
  const { __ } = i18n;

  const NAME = "push-server/notifications";

  blocks.registerBlockType(NAME, {
    edit: ({ attributes, setAttributes }) =>
      make(
        Fragment,
        {},
        make(
          blockEditor.InspectorControls,
          {},
          make(
            components.PanelBody,
            { title: __("Settings", "push-server") },
            make(components.RadioControl, {
              label: __("Show", "push-server"),
              selected: attributes.show,
              options: [
                { label: __("The list", "push-server"), value: "list" },
                { label: __("A bell that opens the list", "push-server"), value: "bell" },
              ],
              onChange: (show) => setAttributes({ show }),
            }),
          ),
        ),
        make(
          "div",
          blockEditor.useBlockProps(),
          make(components.Disabled, {}, make(serverSideRender, { block: NAME, attributes })),
        ),
      ),
    save: () => null,
  });
})(window.wp);
